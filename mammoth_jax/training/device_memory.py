"""What a run says whose devices ran out of memory."""


def explain_full_memory(error: Exception) -> str | None:
    """One sentence, with what to change; None if the error is of another kind."""
    reason = " ".join(str(error).split("\n", 1)[0].split())
    if "RESOURCE_EXHAUSTED" not in reason:
        return None
    return (
        f"the devices' memory is too small for this run ({reason[:200]}); take a smaller run.batch_size, a larger "
        "run.accumulation or a --mesh that divides it further; for a stage also remat, and mammoth-jax plan reckons "
        "what it needs"
    )
