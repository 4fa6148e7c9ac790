"""Type tests of IEEE Std 1547.1-2020 that Modbus and a grid simulator can run."""
