/* The token that the Makefile made for this program: HSMSIGN_MODULE, HSMSIGN_PIN, SOFTHSM2_CONF. */
#ifndef HSMSIGN_TEST_TOKEN_H
#define HSMSIGN_TEST_TOKEN_H

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <openssl/x509.h>
#include <string.h>

#include "check.h"
#include "native/host/host.h"
#include "native/host/module.h"

static CK_FUNCTION_LIST *p11;
static CK_SLOT_ID slot;
static CK_SESSION_HANDLE manager; /* stays open: it keeps the token logged in */

/* Opens the module and logs in to the first slot with a token. */
static inline void token_open(void)
{
    char error[256];
    uint64_t ckr;
    CHECK(getenv("HSMSIGN_MODULE") != NULL && getenv("HSMSIGN_PIN") != NULL);
    CHECK(hsm_module_open(getenv("HSMSIGN_MODULE"), error, sizeof error, &ckr) == HSM_OK);
    CHECK(C_GetFunctionList(&p11) == CKR_OK);
    CHECK(p11->C_Initialize(NULL) == CKR_OK);
    CK_ULONG count = 1;
    CK_RV rv = p11->C_GetSlotList(CK_TRUE, &slot, &count); /* SoftHSM has one more, uninitialised, slot */
    CHECK(rv == CKR_OK || rv == CKR_BUFFER_TOO_SMALL);
    CK_SLOT_ID slots[8];
    count = 8;
    CHECK(p11->C_GetSlotList(CK_TRUE, slots, &count) == CKR_OK && count >= 1);
    slot = slots[0];
    CHECK(p11->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &manager) == CKR_OK);
    char *pin = getenv("HSMSIGN_PIN");
    CHECK(p11->C_Login(manager, CKU_USER, (CK_BYTE_PTR)pin, strlen(pin)) == CKR_OK);
}

/* A key pair with this CKA_ID, and its public key for OpenSSL, which the caller frees. */
static inline EVP_PKEY *token_ec_key(uint8_t id, const char *curve)
{
    ASN1_OBJECT *object = OBJ_txt2obj(curve, 0);
    uint8_t *params = NULL;
    CHECK(object != NULL);
    int params_len = i2d_ASN1_OBJECT(object, &params);
    CK_BBOOL yes = CK_TRUE;
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_OBJECT_HANDLE public, private;
    CK_ATTRIBUTE public_template[] = {
        {CKA_EC_PARAMS, params, (CK_ULONG)params_len}, {CKA_TOKEN, &yes, 1}, {CKA_ID, &id, 1}};
    CK_ATTRIBUTE private_template[] = {
        {CKA_TOKEN, &yes, 1}, {CKA_PRIVATE, &yes, 1}, {CKA_SENSITIVE, &yes, 1}, {CKA_SIGN, &yes, 1}, {CKA_ID, &id, 1}};
    CHECK(p11->C_GenerateKeyPair(manager, &mechanism, public_template, 3, private_template, 5, &public, &private) ==
          CKR_OK);
    uint8_t point[200];
    CK_ATTRIBUTE wanted = {CKA_EC_POINT, point, sizeof point};
    CHECK(p11->C_GetAttributeValue(manager, public, &wanted, 1) == CKR_OK);

    const uint8_t *at = point;
    ASN1_OCTET_STRING *octets = d2i_ASN1_OCTET_STRING(NULL, &at, (long)wanted.ulValueLen);
    CHECK(octets != NULL);
    X509_PUBKEY *spki = X509_PUBKEY_new();
    uint8_t *copy = OPENSSL_memdup(octets->data, (size_t)octets->length);
    CHECK(X509_PUBKEY_set0_param(spki, OBJ_nid2obj(NID_X9_62_id_ecPublicKey), V_ASN1_OBJECT, object, copy,
                                 octets->length) == 1);
    uint8_t *der = NULL; /* it has a key to give only once it was read from DER */
    int der_len = i2d_X509_PUBKEY(spki, &der);
    const uint8_t *reading = der;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &reading, der_len);
    CHECK(key != NULL);
    OPENSSL_free(der);
    X509_PUBKEY_free(spki); /* and with it `object` and `copy` */
    ASN1_OCTET_STRING_free(octets);
    OPENSSL_free(params);
    return key;
}

/* An RSA key pair with this CKA_ID. */
static inline void token_rsa_key(uint8_t id, CK_ULONG bits)
{
    CK_BBOOL yes = CK_TRUE;
    CK_BYTE exponent[] = {1, 0, 1};
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_OBJECT_HANDLE public, private;
    CK_ATTRIBUTE public_template[] = {{CKA_MODULUS_BITS, &bits, sizeof bits},
                                      {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
                                      {CKA_TOKEN, &yes, 1},
                                      {CKA_ID, &id, 1}};
    CK_ATTRIBUTE private_template[] = {{CKA_TOKEN, &yes, 1}, {CKA_PRIVATE, &yes, 1}, {CKA_SIGN, &yes, 1}, {CKA_ID, &id, 1}};
    CHECK(p11->C_GenerateKeyPair(manager, &mechanism, public_template, 4, private_template, 4, &public, &private) ==
          CKR_OK);
}

static inline void token_destroy_key(uint8_t id)
{
    CK_ATTRIBUTE wanted = {CKA_ID, &id, 1};
    CK_OBJECT_HANDLE found[4];
    CK_ULONG count = 0;
    CHECK(p11->C_FindObjectsInit(manager, &wanted, 1) == CKR_OK);
    CHECK(p11->C_FindObjects(manager, found, 4, &count) == CKR_OK);
    CHECK(p11->C_FindObjectsFinal(manager) == CKR_OK);
    for (CK_ULONG i = 0; i < count; i++)
        CHECK(p11->C_DestroyObject(manager, found[i]) == CKR_OK);
}

static inline int ecdsa_fits(EVP_PKEY *key, const uint8_t *digest, size_t digest_len, const uint8_t *sig, size_t len)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    CHECK(context != NULL && EVP_PKEY_verify_init(context) == 1);
    int fits = EVP_PKEY_verify(context, sig, len, digest, digest_len) == 1;
    EVP_PKEY_CTX_free(context);
    return fits;
}

#endif
