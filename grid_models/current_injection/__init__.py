"""A feeder reduced to its ports: voltages affine in the currents that loads and DERs inject."""
