package hsmsign_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"log"
	"os"

	"hsmsign.dev/go"
)

func Example() {
	path := os.Getenv("HSMSIGN_TEST_CLIENT") // a client.toml
	if path == "" {
		fmt.Println("true") // there is no daemon
		return
	}
	ctx := context.Background()
	client, err := hsmsign.FromFile(path) // or hsmsign.Dial(ctx, "unix:///run/hsmsign/hsmsign.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	signer, err := client.Signer(ctx, "keys/go-ecdsa-p256") // a crypto.Signer and crypto.MessageSigner
	if err != nil {
		log.Fatal(err)
	}
	signature, err := signer.SignMessageContext(ctx, []byte("hello"), crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	digest := sha256.Sum256([]byte("hello"))
	fmt.Println(ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], signature))
	// Output: true
}
