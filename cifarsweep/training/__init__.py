"""One run: configuration, objects, loop, result files. The only place that reads a composed configuration's keys."""
