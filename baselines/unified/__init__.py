"""What UniControl and Uni-ControlNet share: how their files are found, their control branches and samplers."""
