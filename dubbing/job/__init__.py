"""A dub as a job that survives anything: planned once, rendered in segments, joined at the end.

    dub.mp4               the output, not there before the end
    .dub.mp4.dub/         the state folder
        job.json          what decides the result: inputs by content, options, weights, versions
        persona.safetensors, findings.safetensors, motion.safetensors
        segment-00000.video, segment-00000.json, ...     encoded pictures, and their record
        lock              held (flock) by the run that owns the output

A segment is a function of the state folder and its number: it is decoded from a key frame of its
own, together with the few frames around it that its own frames refer to, and has a fresh encoder.
So any process may render any segment in any order, and a run that was killed goes on where it was
with the bytes that it would have made.

`Dubber.dub` does all of it in one process. To share the work of one job among several:

    # the driver
    with dubber.plan("film.mp4", "speech.wav", "dub.mp4", options) as job:
        for number in job.missing():
            queue.put((job.folder.path, number))
        ...                                     # until job.missing() is empty
        report = dubber.finish(job)

    # a worker, in a process (started by "spawn") or on a machine that sees the same folders
    job = Job.load(folder)                      # once per job
    with SegmentRenderer(dubber, job) as renderer:
        renderer.render(number)                 # any number of times

Where the video is long its faces can be looked for in the same way, before the job is planned:

    shared = dubber.share_faces("film.mp4", seen, options)   # the driver: seen is a folder
    SharedFaces.load(seen).find(number, dubber.model)    # workers: shared.missing()
    with dubber.plan(..., faces=seen) as job: ...

The driver holds the lock and decides who renders what; two workers at the same segment do the work
twice, and either result is right. Where the block is left by an exception the state stays, and
`options.resume` finds it. Inputs are looked at after every segment, and read whole at the end.
"""

from dubbing.job.folder import JobFolder, clean_state, held_state, state_path
from dubbing.job.job import Job
from dubbing.job.joining import join_segments
from dubbing.job.rendering import SegmentRenderer
from dubbing.job.shared_faces import SharedFaces

__all__ = [
    "Job",
    "JobFolder",
    "SegmentRenderer",
    "SharedFaces",
    "clean_state",
    "held_state",
    "join_segments",
    "state_path",
]
