"""Training of heads, and of encoders where asked, from cached features: `unialign-gen train CONFIG`."""
