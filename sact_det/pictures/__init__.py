"""What people look at: ponder maps, panels, contact sheets, figures, the HDF5 format of ponder maps."""
