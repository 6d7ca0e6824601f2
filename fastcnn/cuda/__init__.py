"""The CUDA floor: the ops as `@cuda.jit` kernels on arrays in the memory of an NVIDIA GPU.

It needs numba-cuda (`pip install 'fastcnn[cuda13]'`) and a driver; without them it can be imported, and every use says
what is missing. With ``NUMBA_ENABLE_CUDASIM=1`` it runs on numba's simulator, slowly, which is how it is tested where
there is no GPU.
"""
