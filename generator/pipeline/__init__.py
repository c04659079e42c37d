"""Steps from the pinned document to the generated client. They import no other room: the lock hashes this one."""
