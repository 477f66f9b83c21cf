"""NVIDIA's LocateAnything, written natively in PyTorch. The way in is `backend.LocateAnythingBackend`.

The modules follow a question on its way: `prompt` and `preprocessing` make the input, `vision`, `language` and `model`
are the network, `sampling` and `blocks` turn logits into tokens, `generate` is the loop, `parse` reads the answer.
`config`, `hub` and `weights` open a checkpoint, `engine` runs it on a device.
"""
