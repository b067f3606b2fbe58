"""What is lost or wrong after kills, flipped bits, crafted folders and hostile corpora."""
