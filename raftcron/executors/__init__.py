"""Runs attempts: one file a kind of executor, and the process that starts commands.  Whether to run is not here.

Nothing is imported on purpose: the spawner is a module of this package, and must start fast and stay small.

    registry    names -> executor classes, and the one door for validation
    http        HttpExecutor: a webhook
    shell       ShellExecutor: a command, through the spawner
    python      PythonExecutor: a handler of the embedding application;  handler_process: one in a child
    noop        NoopExecutor: succeeds at once
    spawner     the daemon's side of the spawner;  spawner_main, children: the spawner itself
    remnants    what a former life left running, and its end
"""
