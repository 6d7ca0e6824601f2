"""The families of benchmarks: each file lists its cases, `cases()`, and makes their arrays, `inputs(case, rng)`."""
