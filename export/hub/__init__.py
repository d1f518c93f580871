"""A proved file on the Hugging Face Hub: pushed as one commit, pulled and replayed before it is named."""
