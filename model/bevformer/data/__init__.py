"""nuScenes data for BEVFormer: stores, tables, infos, samples, and a synthetic set."""
