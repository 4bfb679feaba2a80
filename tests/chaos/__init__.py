"""A seeded run of faults against the whole pipeline, and the proof that nothing came of them.

    make chaos SEED=1 MINUTES=2

Producers write and readers read throughout; processes and stores are killed, stopped, paused and
started again at moments that the seed alone decides. Then everything is drained and
`tests.checker` says whether a tick was lost or counted twice, or a reader got a stale value.
"""
