"""The alignment bench: every objective on one cache, with one trainer, equal budgets and equal searches, in one report."""
