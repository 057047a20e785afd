SUMMARY = "Tells Coxswain that a container is ready"
DESCRIPTION = "A client of the control socket in 50 lines; put it into images of containers whose goal is READY."
COXSWAIN_PACKAGE = "ready"
COXSWAIN_MEMBER = "examples/ready"

require coxswain.inc
