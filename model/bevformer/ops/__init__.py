"""The two sampling operators of BEVFormer, in plain torch; faster backends come beside these."""
