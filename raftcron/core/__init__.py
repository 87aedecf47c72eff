"""Pure: nouns, calendar, policies, planner, state machine.  No I/O, no clock, no chance, no threads."""
