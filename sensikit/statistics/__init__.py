"""What is computed from stored sensitivities: D, PCC and its noise, and where in the model they lie."""
