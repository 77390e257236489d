"""What the kernels of every family share: compiling, launching, planning, selection and attention."""
