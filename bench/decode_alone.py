"""The floor under every mix of files: decode them all, one thread each, and throw the frames away.

`python -m bench.decode_alone FILE …`. No engine that decodes everything can do less than this with the same
libraries, so composing is judged by how little it adds. It decodes the sound too, as a mix has to.
"""

import sys
import threading

import av


def decode(file: str, counts: dict[str, int]) -> None:
    """Decode one file to its end with one decoder thread a stream; its number of video frames goes to `counts`."""
    with av.open(file) as container:
        for stream in container.streams:
            stream.codec_context.thread_count = 1
        frames = 0
        for frame in container.decode():
            frames += isinstance(frame, av.VideoFrame)
        counts[file] = frames


def main(files: list[str]) -> int:
    """Decode all at once. Exit status 1 when one of them could not be."""
    counts: dict[str, int] = {}
    threads = [threading.Thread(target=decode, args=(file, counts)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"frames: {sum(counts.values())} of {len(counts)} files")
    return int(len(counts) < len(set(files)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
