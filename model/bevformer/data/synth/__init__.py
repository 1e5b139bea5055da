"""A synthetic set in nuScenes format: a small street as a function of time, seen by six cameras and a lidar."""
