"""A synthetic set in nuScenes format: a street as a function of time, six cameras and a lidar."""
