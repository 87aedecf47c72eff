"""The HTTP interface: reads requests, asks runtime/service and runtime/reads, answers.  Nothing is decided here.

app        routes and wiring; begin here          context   what a node gives to its interface
guard      Host and Origin                        bodies    reading and decoding, with limits
auth       tokens, roles, forwarded callers       tokens audit    their routes
query      parameters and headers of requests     respond   answers;  problems: the error ones
forward    a write's way to the leader            jobs runs cluster health metrics   one file a resource
"""
