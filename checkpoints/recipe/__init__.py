"""The recipe: everything that the starter checkpoint is made of, from packages of public registries on.

    data         packages (pinned) -> pictures: sources, cut_outs, colours -> variants -> rows; sounds; clips
    encode       encoders out of their packages -> features of pictures, texts and sounds
    space        the image space: a head that is trained first and then frozen; embeddings of all pictures
    autoencoder  movq -> pack: one file from which train-decoders (decoders) trains anywhere; upscaler
    heads        caches of features, words out of WordNet -> text and sound heads -> recognition
    recall       measures the embeddings, with what is known: concepts, prior, limits
    judge        the evaluation's own eye
    assemble     the checkpoint

`stages` has what each of these reads and writes in the data folder, `__main__` is the command line. `files` writes whole files
or none, so that a stage can be killed at any moment; `loop` does the same for trainings.
"""
