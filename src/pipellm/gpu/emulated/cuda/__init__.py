"""Makes `torch.cuda` work on the emulated GPU.

`torch.cuda` is Python over functions of `torch._C` that only a CUDA build has. Those are what this
package supplies, so that the Python half stays torch's own; each module has one noun of them and
names them in its `bindings()`.
"""

from pipellm.gpu.emulated.cuda.install import install
from pipellm.gpu.emulated.cuda.properties import DeviceProperties

__all__ = ["DeviceProperties", "install"]
