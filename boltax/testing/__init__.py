"""What a user's own tests may ask of a trainer: `assert_resumes_exactly`."""

from boltax.testing._resumes import assert_resumes_exactly

__all__ = ["assert_resumes_exactly"]
