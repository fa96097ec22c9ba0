"""From a constructor's arguments to the parts of a trainer: steps, loggers, folder, optimizer."""
