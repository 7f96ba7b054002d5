"""What a model is: its manifest, the one encoder, the forward pass in numpy, and where its versions live."""
