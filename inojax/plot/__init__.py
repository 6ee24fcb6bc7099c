"""Figures: arrays and objects in, a Matplotlib figure out; save it with `figure.savefig(path)`.

Matplotlib comes with `pip install inojax[experiments]`; `import inojax` does not import this.
"""

from ._calibration import calibration as calibration
from ._errors import parameter_errors as parameter_errors
from ._identifiability import identifiability as identifiability
from ._landscape import landscape as landscape
from ._losses import losses as losses
from ._overview import overview as overview
from ._pairs import pairs as pairs
from ._predictive import predictive as predictive
from ._profiles import profiles as profiles
from ._recovery import recovery as recovery
from ._style import house_style as house_style, new_figure as new_figure
from ._trajectories import trajectories as trajectories
from ._work_precision import work_precision as work_precision
