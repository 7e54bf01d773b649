"""What all distances share: libraries, checks, operators, threads and compiled loops; no formula of a distance."""
