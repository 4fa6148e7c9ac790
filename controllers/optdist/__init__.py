"""OPTDIST-VC: distributed optimal voltage control by feedback and neighbour messages."""
