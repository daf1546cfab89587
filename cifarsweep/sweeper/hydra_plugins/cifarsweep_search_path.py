"""Puts the engine's configuration groups into the search path of any Hydra application."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class EngineSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="cifarsweep", path="pkg://cifarsweep.sweeper.conf")
