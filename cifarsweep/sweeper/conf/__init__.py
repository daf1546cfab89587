"""The engine's configuration groups, which its plugin puts into the search path of any Hydra application."""
