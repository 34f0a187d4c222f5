"""Looking into raw and prepared data: what is wrong with it (`doctor`) and what is in it (`inspect`)."""
