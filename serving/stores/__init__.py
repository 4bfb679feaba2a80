"""Where rows are read from. Redis keys are known here and in `serving.watch`, nowhere above."""
