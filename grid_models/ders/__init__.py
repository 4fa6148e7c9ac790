"""DERs: placement rules, and models of PV, batteries, houses, water heaters and electric vehicles."""
