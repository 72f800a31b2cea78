"""Instructions that code can check: the types of IFEval and IFBench, and the reward ``instruction`` over them."""
