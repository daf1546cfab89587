"""A script that begins where it ends, also where it is imported, and a task that has processes of its own."""

import multiprocessing

import hydra
from omegaconf import DictConfig, OmegaConf

VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}
OmegaConf.register_new_resolver("twice", lambda x: 2 * x)


@hydra.main(config_path="bare", config_name="config", **VERSION)
def main(cfg: DictConfig) -> float:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return sum(pool.map(abs, [cfg.x, -cfg.y]))


main()
