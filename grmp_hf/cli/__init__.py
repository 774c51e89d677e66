"""The command ``grmp-iqa``: one module a sub-command. Nothing here imports anything heavy before a command runs."""
