"""Values that know nothing of training: types, trees, keys, triggers, options, monitors, chunks."""
