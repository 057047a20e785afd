SUMMARY = "Client of Eclipse hawkBit for devices that run Coxswain"
COXSWAIN_PACKAGE = "coxswain-hawkbit"
COXSWAIN_MEMBER = "cloud-clients/hawkbit"

require coxswain.inc
