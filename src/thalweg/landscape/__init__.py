"""Loss surfaces, the paths of optimizers over them, and pictures of both."""

from thalweg.landscape.animation import contour_animation, surface_animation, write_page
from thalweg.landscape.catalogue import SURFACES, surface
from thalweg.landscape.contours import levels
from thalweg.landscape.functions import (
    ackley,
    beale,
    bowl,
    goldstein_price,
    himmelblau,
    rastrigin,
    rosenbrock,
)
from thalweg.landscape.gif import write_gif
from thalweg.landscape.network import NetworkSlice, slice_of, snapshot
from thalweg.landscape.pictures import draw_contours, draw_surface, save
from thalweg.landscape.saddles import monkey_saddle, saddle
from thalweg.landscape.scenes import SCENES, Scene, ravine_scene, saddle_scene, scene
from thalweg.landscape.surfaces import Surface
from thalweg.landscape.trajectory import Trajectory, follow, trace, trace_all
from thalweg.landscape.valley import valley

__all__ = [
    "SCENES",
    "SURFACES",
    "NetworkSlice",
    "Scene",
    "Surface",
    "Trajectory",
    "ackley",
    "beale",
    "bowl",
    "contour_animation",
    "draw_contours",
    "draw_surface",
    "follow",
    "goldstein_price",
    "himmelblau",
    "levels",
    "monkey_saddle",
    "rastrigin",
    "ravine_scene",
    "rosenbrock",
    "saddle",
    "saddle_scene",
    "save",
    "scene",
    "slice_of",
    "snapshot",
    "surface",
    "surface_animation",
    "trace",
    "trace_all",
    "valley",
    "write_gif",
    "write_page",
]
