SUMMARY = "Client of Eclipse hawkBit for devices that run Coxswain"
COXSWAIN_CLOUD = "hawkbit"

require coxswain-cloud.inc
