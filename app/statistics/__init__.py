"""How sure a measured figure is: intervals for means, ratios and shares of texts' tokens. Pure, standard library only.

May import: nothing.
"""
