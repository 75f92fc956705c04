//! What the device is told and tells, and the kernels against plain loops.
