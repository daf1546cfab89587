"""Result files to tables and figures. Reads what runs left on disk; knows nothing of training, Hydra or PyTorch."""

from cifarsweep.report.report_command import compare as compare
from cifarsweep.report.report_command import live_page as live_page
from cifarsweep.report.report_command import main as main
from cifarsweep.report.report_command import show as show
from cifarsweep.report.report_command import write as write
