"""What `explain` writes: the job, its folder of results, its page. No torch."""
