"""Bad inputs of every command line: each must end in one line that says what is wrong.

A module in this folder with a list CASES is an area; test_bad_inputs.py finds it by itself. A row is

    Case("train_net", r"SOLVER\\.MAX_ITER must be .*; got 0", *DETECTOR, "SOLVER.MAX_ITER", "0"),
    Case("visualize", r"a\\.jpg: .* cannot be read", *DRAW_DETECTIONS, "--input", file("a.jpg", b"no image")),

the tool, a regular expression to be found in the line, and the words of the command. A word may be a function of the
`Place` of the case instead: of `place.folder`, an empty folder where bad files are written (`file` makes such a word;
commands run there), of `place.output`, which does not exist yet (`output` is this word), and of `place.good`, the good
inputs that all cases share (good_inputs.py; `good("detector_weights")` is such a word). Harness and shared starts of
commands (DETECTOR, CLASSIFIER, ...) are in harness.py; KEY VALUE pairs that come later win. A row costs milliseconds:
what takes a training, a process or a big file belongs elsewhere.

What every case has to fulfil is `Case.run`: an exit code that is not 0, one line that starts with "error: " and is the
last, no traceback, nothing that nobody thought of ("traceback: FILE"), and every file that was there as it was, no
other beside the records of a run; `leaves` are patterns of files that a case may leave behind beyond these.
"""
